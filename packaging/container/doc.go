// Package container holds what runs supervise as PID 1 of a container, and the
// tests of it. There is no container engine in the tests: engine_test.go makes
// what an engine makes, namespaces, a read-only root without /sys/fs/cgroup to
// write to, no capabilities, the denials of the default seccomp profile of
// Docker and containerd, and 64 MB of memory.
package container
