"""What looks after the processes of one host: the watchdog, and the scaler of its workers."""
