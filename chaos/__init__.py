"""A seeded driver that kills what Loradeck consists of while it works, and looks whether anything was lost."""
