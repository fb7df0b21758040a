"""The door for a person beside a running engine: a socket that only its owner can open."""
