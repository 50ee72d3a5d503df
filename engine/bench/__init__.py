"""The project's own measure of speed: `python run.py bench`. What can be measured is listed in `engine.bench.command`."""
