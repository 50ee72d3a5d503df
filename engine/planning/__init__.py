"""What a run will cost in memory and time, said before any GPU is touched (`python run.py plan`)."""
