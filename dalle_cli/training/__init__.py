"""Training: one explicit loop for every task, and the state that lets it continue as if never stopped."""
