"""From predictions to numbers, tables and pictures. Knows numpy arrays and files, no model, no data set, no process group."""
