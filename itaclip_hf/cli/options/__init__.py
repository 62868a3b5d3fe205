"""Options of the commands: one dataclass a group, which commands share; `groups` hands them to Typer."""
