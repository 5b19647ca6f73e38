// Package docs holds the documentation for users, and the test that runs every
// command in it.
//
// A block that begins with "```console" is a session at a terminal: lines that
// begin with "$ " are typed, the others are the answer. "..." stands for any
// text within a line, or alone for any lines. A comment before it, in which
// "needs:" names programs, lets the test skip the blocks that follow in that
// section where one is missing; "file:" makes the block after it a file.
package docs
