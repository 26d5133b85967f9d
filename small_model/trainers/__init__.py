"""Programs that train the small model and store what they trained, run with `python -m small_model.trainers.NAME`."""
