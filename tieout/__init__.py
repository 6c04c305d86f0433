"""The domain: pure rules from the usage event to the posted journal entry. No I/O, no clock, no engine."""
