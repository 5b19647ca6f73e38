package listen

// child plays a part in a process of its own.
func child(play string) int { return 2 }
