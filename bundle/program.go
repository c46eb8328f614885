package bundle

import (
	"context"
	"debug/buildinfo"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// module is what every Millrace program is built from.
const module = "github.com/millrace/millrace"

// Program says what a binary runs on.
type Program struct {
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Static bool   `json:"static"` // it needs no C library there
}

// Inspect reads what a binary of Millrace was built for: BadRequest when it is something else.
func Inspect(path string) (Program, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return Program{}, failure.Wrap(failure.BadRequest, path, "reading what the program was built for", err)
	}
	if info.Main.Path != module {
		return Program{}, failure.New(failure.BadRequest, path, "is a program of %q, not of Millrace", info.Main.Path)
	}
	var p Program
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS":
			p.OS = s.Value
		case "GOARCH":
			p.Arch = s.Value
		}
	}
	p.Static = !interpreted(path)
	return p, nil
}

// interpreted reports whether an ELF file is loaded by the C library's loader.
func interpreted(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}

// Build builds the program for a system and processor, from the checkout that one of the folders is in, into the file out. NotFound when none
// is in a checkout, or there is no Go toolchain.
func Build(ctx context.Context, folders []string, goos, goarch, out string) error {
	e := failure.New(failure.NotFound, goos+"/"+goarch, "this program is not one for it that stands alone, and there is none to be built here").
		WithHint("name a released binary with --binary, or run this in a checkout of %s with Go installed", module)
	var root string
	for _, folder := range folders {
		if root = checkout(folder); root != "" {
			break
		}
	}
	if _, err := exec.LookPath("go"); err != nil || root == "" {
		return e
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, "./cmd/millrace")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	if said, err := cmd.CombinedOutput(); err != nil {
		return failure.Wrap(failure.Unavailable, root, "building the program: "+strings.TrimSpace(string(said)), err).WithHint("name a released binary with --binary")
	}
	return nil
}

// checkout is the root of Millrace's source that a folder is in; empty when it is in none.
func checkout(folder string) string {
	for {
		text, err := os.ReadFile(filepath.Join(folder, "go.mod"))
		if first, _, _ := strings.Cut(string(text), "\n"); err == nil && strings.TrimSpace(first) == "module "+module {
			return folder
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return ""
		}
		folder = parent
	}
}

// Find gives a binary for a system and processor: this very program where it is one that stands alone, else one that is built into the folder
// temp.
func Find(ctx context.Context, goos, goarch, temp string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", failure.Wrap(failure.Internal, "", "finding this program's file", err)
	}
	if goos == runtime.GOOS && goarch == runtime.GOARCH && !interpreted(self) {
		return self, nil
	}
	work, err := os.Getwd()
	if err != nil {
		return "", failure.Wrap(failure.Internal, "", "finding the working folder", err)
	}
	out := filepath.Join(temp, programFile)
	return out, Build(ctx, []string{work, filepath.Dir(self)}, goos, goarch, out)
}
