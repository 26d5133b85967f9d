"""What training computes: the teacher's trajectory, the student's target, the curriculum."""
