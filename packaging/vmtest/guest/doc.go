// Package guest holds the tests that need a real systemd as the manager above
// supervise. They run inside the virtual machine that packaging/vmtest/run
// starts, and skip elsewhere: they write units and tell systemd about them.
//
// Time is emulated there and slow: the tests wait for what systemd and the
// journal say, and count connections.
package guest
