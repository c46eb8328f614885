package project

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

var update = flag.Bool("update", false, "write the faults that are found into the files that must have them")

// faultsBelow begins the faults that a bad file must have: all of them, in their order.
const faultsBelow = "# ---- faults\n"

// Every testdata/*.bad.yaml ends with the faults that loading it must find. With -update they are rewritten, to be reviewed.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			src, want, _ := strings.Cut(string(content), faultsBelow)
			_, faults := load([]byte(src), readTestdata, "")
			var got strings.Builder
			for _, f := range faults {
				got.WriteString("# " + f.String() + "\n")
			}
			if *update {
				if err := os.WriteFile(file, []byte(src+faultsBelow+got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != want {
				t.Errorf("got\n%swant\n%s", got.String(), want)
			}
			if len(faults) == 0 {
				t.Error("the file has no fault")
			}
		})
	}
}

func readTestdata(name string) ([]byte, error) { return os.ReadFile(filepath.Join("testdata", name)) }

func TestFaultsAreOneError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte("project: x\nsorces: {}\nclock: evnt\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir)
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 3 || failure.Of(err) != failure.BadProject {
		t.Fatalf("error is %v, of kind %v", err, failure.Of(err))
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[1], FileName+":2:1: ") || !strings.HasSuffix(lines[1], `(did you mean "sources"?)`) {
		t.Errorf("the error reads\n%v", err)
	}
}

func TestLoadWithoutAProject(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "nowhere")} {
		if _, err := Load(dir); failure.Of(err) != failure.NotFound {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestSchemaThroughALinkOutOfTheFolder(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	text, err := os.ReadFile("testdata/schemas/arrival.avsc")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(filepath.Join(outside, "a.avsc"), text, 0o644),
		os.Symlink(filepath.Join(outside, "a.avsc"), filepath.Join(dir, "a.avsc")),
		os.WriteFile(filepath.Join(dir, FileName), []byte("project: x\nsources:\n  a: {schema: a.avsc, key: flight_id, time: arrived}\n"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(dir); failure.Of(err) != failure.BadProject || !strings.Contains(err.Error(), FileName+":3:15: ") {
		t.Errorf("error is %v", err)
	}
}
