//go:build unix

package trainer

import (
	"os/exec"
	"syscall"
)

// ownGroup has the command run in a process group of its own, all of which is killed with it.
func ownGroup(cmd *exec.Cmd) (killAll func()) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killAll = func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // there may be none left
	cmd.Cancel = func() error {
		killAll()
		return nil
	}
	return killAll
}
