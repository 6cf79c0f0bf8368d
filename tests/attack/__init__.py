"""Everything an attacker on the app plane can do, at once, beside an honest client."""
