"""Fine-tuning: the data it takes, how a run is made, and what it leaves of alignment."""
