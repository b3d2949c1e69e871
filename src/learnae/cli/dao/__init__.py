"""`learnae dao`: a session's contracts by hand. A member who only deposits, votes and withdraws needs neither torch nor libp2p."""
