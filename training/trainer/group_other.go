//go:build !unix

package trainer

import "os/exec"

// ownGroup has the command killed by itself: there are no process groups here.
func ownGroup(cmd *exec.Cmd) (killAll func()) {
	return func() { _ = cmd.Process.Kill() } // it may be gone
}
