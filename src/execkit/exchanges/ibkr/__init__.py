"""Interactive Brokers, through the TWS socket."""
