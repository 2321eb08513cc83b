"""What happened: the ledger of runs, the outbox, the guard, leases, replay and pruning."""
