package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// named matches `path/file.go:Func` and `path/file.go:Type.Method` in a document.
var named = regexp.MustCompile("`([a-z0-9_/]+\\.go):([A-Za-z0-9_.]+)`")

// filed matches `path/file.go` alone, and scripted the scripts of the library.
var filed = regexp.MustCompile("`([a-z0-9_]+/[a-z0-9_/]+\\.(?:go|yaml|md|json|avsc))`")

var scripted = regexp.MustCompile("`([a-z0-9_]+\\.txtar)`")

// TestNamesExist fails when a document names a function, method, type, test or file that is gone.
func TestNamesExist(t *testing.T) {
	documents, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, doc := range append(append(documents, decisions...), "../README.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range filed.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", doc, m[1])
			}
		}
		for _, m := range scripted.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join("../features/script/testdata", m[1])); err != nil {
				t.Errorf("%s names the script %s, which is not there", doc, m[1])
			}
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			names++
			if !slices.Contains(declared(t, filepath.Join("..", m[1])), m[2]) {
				t.Errorf("%s names %s:%s, which is not there", doc, m[1], m[2])
			}
		}
	}
	if names < 20 {
		t.Errorf("only %d names found: the documents no longer name the code", names)
	}
}

// declared is the functions, methods (Type.Method) and types of a file; nothing when there is no such file.
func declared(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil
	}
	var names []string
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, receiver(d)+d.Name.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if ts, ok := s.(*ast.TypeSpec); ok {
					names = append(names, ts.Name.Name)
				}
			}
		}
	}
	return names
}

func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	e := d.Recv.List[0].Type
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if generic, ok := e.(*ast.IndexExpr); ok {
		e = generic.X
	}
	if id, ok := e.(*ast.Ident); ok {
		return id.Name + "."
	}
	return ""
}

const module = "github.com/millrace/millrace/"

// layers are the packages from the bottom up; a package imports only what is below it. Packages of one layer do not
// import each other.
var layers = []map[string]bool{
	set("internal/failure", "internal/clock", "internal/duration", "internal/idle"),
	set("schemas"),
	set("features", "streams", "registry", "registry/model/onnx"),
	set("registry/model", "registry/oci", "features/profile", "features/script"),
	set("project"),
	set("features/online", "features/offline", "streams/broker", "training/gbdt", "training/logistic"),
	set("enrich", "training/trainer", "serving/access", "bundle"),
	set("features/pit"),
	set("features/dataset"),
	set("streams/ingest", "training", "serving", "monitor", "consistency", "console"),
	set("serving/openinference/inferencepb"),
	set("serving/openinference", "serving/feast", "serving/openapi", "serving/batches"),
	set("examples/flights", "streams/ingest/ingesttest"),
	set("cmd/millrace", "bench/flights", "bench/forest", "bench/forest/scoring", "bench/peers", "bench/serving", "e2e"),
}

func set(names ...string) map[string]bool {
	s := map[string]bool{}
	for _, n := range names {
		s[n] = true
	}
	return s
}

func layer(name string) int {
	return slices.IndexFunc(layers, func(l map[string]bool) bool { return l[name] })
}

// TestImportsGoOneWay holds the order of imports: above all, no stage imports another.
func TestImportsGoOneWay(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		from := filepath.ToSlash(filepath.Dir(strings.TrimPrefix(path, "../")))
		if from == "docs" {
			return nil
		}
		at := layer(from)
		if at < 0 {
			t.Errorf("package %s has no place in the order of imports", from)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			to, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module)
			if ours && layer(to) >= at {
				t.Errorf("%s imports %s, which is not below it", path, to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
