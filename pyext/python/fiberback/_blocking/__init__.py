"""Which blocking calls wait on the loop instead? Sleeping, sockets, locks and others, while `blocking` is in force."""
