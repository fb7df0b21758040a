"""Reports for people: what a journal says, in numbers and tables."""
