package project

import (
	"fmt"
	"sort"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// Fault is one thing wrong with a project file. Line and Col count from 1; they are 0 where the whole file is meant.
type Fault struct {
	File string
	Line int
	Col  int
	Msg  string
	Hint string
}

func (f Fault) String() string {
	s := f.File
	if f.Line > 0 {
		s += fmt.Sprintf(":%d:%d", f.Line, f.Col)
	}
	s += ": " + f.Msg
	if f.Hint != "" {
		s += " (" + f.Hint + ")"
	}
	return s
}

// Faults is everything wrong with a project, in the order of its files and lines.
type Faults []Fault

// Error is one fault a line: "file:line:col: what is wrong (what to do)".
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the error its kind.
func (f Faults) Unwrap() error {
	return failure.New(failure.BadProject, "", "the project has %d faults", len(f))
}

func (f Faults) sort() {
	sort.SliceStable(f, func(i, j int) bool {
		a, b := f[i], f[j]
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
}
