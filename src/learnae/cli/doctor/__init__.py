"""`learnae doctor`: what works on this machine and towards the others, what does not, and what to do."""
