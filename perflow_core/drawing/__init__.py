"""Pictures of numbers and of pictures: plots and sheets."""
