"""Where a bundle's operators run, where the time goes, and why."""
