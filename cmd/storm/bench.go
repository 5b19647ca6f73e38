package main

func bench([]string) int { return 64 }
