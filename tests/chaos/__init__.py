"""The campaign: the usage flow on a broker under kills, pauses, broker faults and lost files, judged by an oracle of its own."""
