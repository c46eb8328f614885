package project

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzLoad: no text makes loading panic; it gives either faults with a place in the file, or a project that can be planned.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, filepath.Join(flightsFolder, FileName)) {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src))
	}
	f.Add(smallProject)
	f.Fuzz(func(t *testing.T, src string) {
		p, faults := load([]byte(src), readSchemas, "")
		for _, fault := range faults {
			if fault.Msg == "" || fault.Line < 0 || (fault.Line == 0) != (fault.Col == 0) {
				t.Fatalf("fault %+v", fault)
			}
		}
		if len(faults) > 0 {
			return
		}
		if changes := Plan(p, p.State()); len(changes) > 0 {
			t.Fatalf("a project differs from itself: %+v", changes)
		}
		p.Topology()
	})
}

// readSchemas gives the schemas of testdata and nothing else, whatever a file asks for.
func readSchemas(name string) ([]byte, error) {
	return readTestdata(filepath.Join("schemas", filepath.Base(name)))
}
