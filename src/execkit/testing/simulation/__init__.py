"""simulation: see the modules; `execkit.testing.simulate` is the way in."""
