package registry_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

// The test binary started again with this variable set plays another process on the same folder.
const roleVariable = "MILLRACE_REGISTRY_TEST_ROLE"

func TestMain(m *testing.M) {
	role, dir, _ := strings.Cut(os.Getenv(roleVariable), "=")
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "move":
		err = moveMany(dir)
	case "claim":
		err = claimForEver(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func process(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role+"="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

const movesEach = 20

// moveMany moves the champion to and fro, looking again after every conflict.
func moveMany(dir string) error {
	r, err := registry.Open(dir)
	if err != nil {
		return err
	}
	versions, err := r.Versions("late")
	if err != nil {
		return err
	}
	for moved := 0; moved < movesEach; {
		now, n, err := r.Alias("late", registry.Champion)
		if err != nil {
			return err
		}
		err = r.SetAlias(context.Background(), "late", registry.Champion, versions[n%len(versions)].Digest, now, "")
		if err == nil {
			moved++
		} else if failure.Of(err) != failure.Conflict {
			return err
		}
	}
	return nil
}

func TestProcessesLoseNoMove(t *testing.T) {
	r := open(t)
	a := version(t, r, "a")
	version(t, r, "b")
	version(t, r, "c")
	if err := r.SetAlias(t.Context(), "late", registry.Champion, a, "", ""); err != nil {
		t.Fatal(err)
	}
	var running []*exec.Cmd
	for range 3 {
		cmd := process(t, "move", r.Dir())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	h, err := r.History("late")
	if err != nil {
		t.Fatal(err)
	}
	now, moves := "", 0
	for _, e := range h {
		if e.Kind != registry.EntryAlias {
			continue
		}
		if e.Previous != now {
			t.Fatalf("move %d starts from %s, the one before ended at %s", moves, e.Previous, now)
		}
		now, moves = e.Digest, moves+1
	}
	if moves != 1+3*movesEach {
		t.Errorf("%d moves are in the history, %d were made", moves, 1+3*movesEach)
	}
}

// claimForEver holds a claim until the process is killed.
func claimForEver(dir string) error {
	r, err := registry.Open(dir)
	if err != nil {
		return err
	}
	if _, err := r.Claim("late", "first"); err != nil {
		return err
	}
	fmt.Println("claimed")
	_, err = io.Copy(io.Discard, os.Stdin) // nobody writes to it
	return err
}

func TestAClaimEndsWithItsHolder(t *testing.T) {
	r := open(t)
	cmd := process(t, "claim", r.Dir())
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "claimed\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	_, err = r.Claim("late", "first")
	wantKind(t, err, failure.Conflict)
	other, err := r.Claim("late", "second")
	if err != nil {
		t.Errorf("another purpose is claimed, too: %v", err)
	} else {
		other()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	release, err := r.Claim("late", "first")
	if err != nil {
		t.Fatalf("after its holder's death: %v", err)
	}
	release()
	if release, err = r.Claim("late", "first"); err != nil {
		t.Fatalf("after its release: %v", err)
	}
	release()
}
