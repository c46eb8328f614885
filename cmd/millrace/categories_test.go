package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

// TestImportCategories imports models that keep the names of their categories, with golden rows of texts and the scores that their libraries gave. The
// project declares the names in another order, and more of them.
func TestImportCategories(t *testing.T) {
	files := filepath.Join("..", "..", "registry", "model", "testdata", "names")
	dir, data := categorized(t, "[DL, Ünder, UA, AA, B6]"), t.TempDir()
	command := func(dir string, args ...string) (string, string, int) {
		return millrace(t, append(append([]string{"models"}, args...), "--project", dir, "--data-dir", data)...)
	}
	for file, golden := range map[string]string{"lightgbm.txt": "lightgbm.csv", "xgboost.json": "xgboost.csv", "xgboost.ubj": "xgboost.csv"} {
		out, errs, status := command(dir, "import", "late", filepath.Join(files, file), "--golden", filepath.Join(files, golden))
		if status != 0 || !strings.Contains(out, "3 inputs, 60 golden rows") {
			t.Fatalf("%s: %d %s%s", file, status, out, errs)
		}
	}
	out, errs, status := command(dir, "show", "late@1")
	if status != 0 || !strings.Contains(out, "AA, B6, UA, Ünder") {
		t.Errorf("%d %s%s", status, out, errs)
	}

	// What is exported is imported again, by names.
	file, golden := filepath.Join(data, "model"), filepath.Join(data, "golden.csv")
	if out, errs, status := command(dir, "export", "late@1", "--out", file, "--golden", golden); status != 0 {
		t.Fatalf("%d %s%s", status, out, errs)
	}
	if b, err := os.ReadFile(golden); err != nil || !strings.Contains(string(b), "Ünder,") {
		t.Errorf("%v %s", err, b)
	}
	if out, errs, status := command(dir, "import", "late", file, "--golden", golden); status != 0 {
		t.Errorf("%d %s%s", status, out, errs)
	}

	golden = filepath.Join(files, "lightgbm.csv")
	for names, says := range map[string]string{"[DL, Ünder, UA, AA]": `the category "B6"`, "": "is no float"} {
		out, errs, status := command(categorized(t, names), "import", "late", filepath.Join(files, "lightgbm.txt"), "--golden", golden)
		if status == 0 || !strings.Contains(errs, says) {
			t.Errorf("%q: %d %s%s", names, status, out, errs)
		}
	}
	// A model that takes its codes in the order of the project scores otherwise: the golden rows tell.
	b, err := os.ReadFile(filepath.Join(files, "lightgbm.txt"))
	if err != nil {
		t.Fatal(err)
	}
	nameless, _, found := strings.Cut(string(b), "\npandas_categorical:")
	if !found {
		t.Fatal("the file has no names")
	}
	if err := os.WriteFile(file, []byte(nameless), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := command(dir, "import", "late", file, "--golden", golden); status != failure.Refused.ExitCode() || !strings.Contains(errs, "scores") {
		t.Errorf("without names: %d %s%s", status, out, errs)
	}
}

// categorized is the example with the inputs of the models above. Without names the carrier is a number.
func categorized(t *testing.T, names string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(flightsProject)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "millrace.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	carrier := "carrier: {expr: origin, categories: " + names + "}"
	if names == "" {
		carrier = "carrier: hour(scheduled)"
	}
	text := strings.Replace(string(b), "      - distance\n", "      - distance\n      - "+carrier+"\n      - haul: {expr: destination, categories: [long, short]}\n", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
