//go:build unix

package dataset

import (
	"os"
	"syscall"
)

// hold takes the exclusive flock(2) of f, if nobody has it.
func hold(f *os.File) bool { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil }
