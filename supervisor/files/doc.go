// Package files watches files and folders and says when something of them
// changed: for the dev mode.
//
// A folder is watched with all that is below it, folders that appear later
// included; a file is watched by its name, so that one that is replaced by
// rename(2), as editors and compilers do, is the same file. News are collected
// until it has been quiet for a while (Debounce), or ten times as long when it is
// never quiet: one save of an editor is four events, one build a thousand.
//
// What is ignored: what no source is (Defaults), what .gitignore in a watched
// folder says, and what the user says, in that order, in the language of
// gitignore(5): "*.log", "/build", "tmp/", "!keep.log", "a/**/b". The last rule
// that matches decides; below an ignored folder nothing is looked at. A .gitignore
// further down is not read.
//
// It costs one goroutine and, of inotify(7), one watch for each folder: where
// fs.inotify.max_user_watches is too small, the error says so.
package files
