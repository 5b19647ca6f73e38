package servers

func writeTable(file string, rows []row) error { return nil }
