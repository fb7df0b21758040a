"""execkit: a signal becomes exactly one correct order."""
