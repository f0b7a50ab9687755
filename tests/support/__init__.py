"""Models, rows, runs, damage and stand-ins for services that several tests share."""
