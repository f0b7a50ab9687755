"""The `kdistill` command: options, commands, output and exit statuses."""
