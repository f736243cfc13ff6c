"""What every experiment shares: configuration, steps, plan, run, records, views, doctor, report."""
