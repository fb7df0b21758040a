"""Tells a person what happened, through whatever they read: chat, mail, push."""
