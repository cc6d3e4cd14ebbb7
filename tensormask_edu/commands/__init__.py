"""What each command does, and the report of the demo."""
