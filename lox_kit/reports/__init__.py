"""The figures, table and caption of a study, written as files."""
