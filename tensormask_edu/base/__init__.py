"""What most rooms need: errors, whole files, tables, machine facts."""
