package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/training"
)

// modelsCommand is what can be done with the versions of models. A version is written MODEL@N, MODEL@ALIAS, or MODEL for the champion.
type modelsCommand struct {
	List     modelsList     `cmd:"" default:"withargs" help:"List the versions with their aliases; of one model, its history too."`
	Show     modelsShow     `cmd:"" help:"One version: what it is, what it was made of, its numbers and gates."`
	Promote  modelsPromote  `cmd:"" help:"Make a version the champion, or give it another alias."`
	Rollback modelsRollback `cmd:"" help:"Make the champion what it was before."`
	Canary   modelsCanary   `cmd:"" help:"Let a version answer for a percentage of the entities, as the challenger."`
	Shadow   modelsShadow   `cmd:"" help:"Ask a version what the others answer, and log what it says."`
	End      modelsEnd      `cmd:"" help:"End a challenger or a shadow."`
	Diff     modelsDiff     `cmd:"" help:"What two versions differ in: inputs, numbers, rows, gates, parameters."`
	Export   modelsExport   `cmd:"" help:"Write a version's model file in its own format, for its own library."`
	Import   modelsImport   `cmd:"" help:"Make a version of a model file that was trained elsewhere, vouched for by golden rows."`
	Push     modelsPush     `cmd:"" help:"Copy a version, with all that it was made of, to an OCI registry or a folder."`
	Pull     modelsPull     `cmd:"" help:"Copy a version from an OCI registry or a folder; it becomes a version here, and no champion."`
}

// modelsList prints what versions there are.
type modelsList struct {
	stored `embed:""`
	Model  string `arg:"" optional:"" help:"Print this model's versions and history."`
	JSON   bool   `name:"json" help:"Print JSON lines: versions, then with MODEL its history."`
}

// listedVersion is a line of the list.
type listedVersion struct {
	Model   string   `json:"model"`
	Version int      `json:"version"`
	Aliases []string `json:"aliases,omitempty"`
	Added   string   `json:"added"`
	Digest  string   `json:"digest"`
}

func (c *modelsList) Run(env *environment) error {
	r, err := c.registry()
	if err != nil {
		return err
	}
	models := []string{c.Model}
	if c.Model == "" {
		if models, err = r.Models(); err != nil {
			return err
		}
	} else if _, err := r.Resolve(c.Model + "@1"); err != nil {
		return err
	}
	enc := json.NewEncoder(env.out)
	w := tabwriter.NewWriter(env.out, 0, 0, 2, ' ', 0)
	if !c.JSON {
		fmt.Fprintln(w, "MODEL\tVERSION\tALIASES\tADDED\tDIGEST")
	}
	for _, m := range models {
		listed, err := listVersions(r, m)
		if err != nil {
			return err
		}
		for _, v := range listed {
			if c.JSON {
				if err := enc.Encode(v); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", v.Model, v.Version, strings.Join(v.Aliases, ", "), v.Added, v.Digest)
		}
	}
	if c.Model == "" {
		return w.Flush()
	}
	history, err := r.History(c.Model)
	if err != nil {
		return err
	}
	if !c.JSON {
		fmt.Fprintln(w, "\nWHEN\tWHAT\tVERSION\tALIAS\tPERCENT\tDIGEST\tBY\tNOTE")
	}
	for _, e := range history {
		if c.JSON {
			if err := enc.Encode(e); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", instant(e.At), e.Kind, numbered(e.Version), e.Alias, percent(e.Percent), e.Digest, e.By, e.Note)
	}
	return w.Flush()
}

// numbered is empty for an entry that is of no version.
func numbered(version int) string {
	if version == 0 {
		return ""
	}
	return strconv.Itoa(version)
}

func listVersions(r *registry.Registry, m string) ([]listedVersion, error) {
	versions, err := r.Versions(m)
	if err != nil {
		return nil, err
	}
	aliases, err := r.Aliases(m)
	if err != nil {
		return nil, err
	}
	listed := make([]listedVersion, len(versions))
	for i, v := range versions {
		listed[i] = listedVersion{Model: m, Version: v.Number, Added: instant(v.At), Digest: v.Digest, Aliases: aliasesOf(aliases, v)}
	}
	return listed, nil
}

func aliasesOf(aliases map[string]registry.Version, v registry.Version) []string {
	var names []string
	for _, alias := range slices.Sorted(maps.Keys(aliases)) {
		if aliases[alias] == v {
			names = append(names, alias)
		}
	}
	return names
}

// instant is how the verbs print a time.
func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// modelsShow prints one version.
type modelsShow struct {
	stored  `embed:""`
	Version string `arg:"" help:"MODEL@N, MODEL@ALIAS, or MODEL for the champion."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

func (c *modelsShow) Run(env *environment) error {
	r, err := c.registry()
	if err != nil {
		return err
	}
	d, err := describeVersion(r, c.Version)
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(env.out)
		enc.SetIndent("", "  ")
		return enc.Encode(d)
	}
	return d.print(env.out)
}

// versionView is all that the registry knows of a version.
type versionView struct {
	Version    string                 `json:"version"` // MODEL@N
	Digest     string                 `json:"digest"`
	Added      string                 `json:"added"`
	Aliases    []string               `json:"aliases,omitempty"`
	Format     string                 `json:"format"` // media type of the model file
	Bytes      int                    `json:"bytes"`  // of the model file
	Golden     int                    `json:"golden_rows"`
	Rows       int64                  `json:"training_rows"`
	Code       string                 `json:"code,omitempty"`
	Parameters map[string]string      `json:"parameters,omitempty"` // annotations of model and dataset, and what the model file says
	Inputs     []model.SignatureInput `json:"inputs"`
	Metrics    map[string]float64     `json:"metrics,omitempty"`
	Gates      []training.Verdict     `json:"gates,omitempty"` // of its evaluation, where this registry has it
	MadeOf     []registry.Ref         `json:"made_of,omitempty"`
}

// describeVersion gathers what there is on a version. A part that is not in this registry is left out.
func describeVersion(r *registry.Registry, text string) (*versionView, error) {
	ref, err := r.Resolve(text)
	if err != nil {
		return nil, err
	}
	manifest, bundle, err := readBundle(r, ref.Digest)
	if err != nil {
		return nil, err
	}
	aliases, err := r.Aliases(ref.Model)
	if err != nil {
		return nil, err
	}
	d := &versionView{
		Version: ref.String(), Digest: ref.Digest, Added: instant(ref.At), Aliases: aliasesOf(aliases, ref.Version),
		Format: bundle.Format, Bytes: len(bundle.Model), Golden: len(bundle.Golden), Rows: manifest.Rows, Code: manifest.Code,
		Parameters: parameters(bundle), Inputs: bundle.Signature, MadeOf: manifest.Inputs,
	}
	for name, value := range manifest.Annotations {
		d.Parameters[name] = value
	}
	if digest, ok := manifest.Input(registry.KindDataset); ok {
		m, err := r.Manifest(digest)
		if err != nil {
			return nil, err
		}
		for name, value := range m.Annotations {
			d.Parameters["dataset."+name] = value
		}
	}
	if digest, ok := manifest.Input(registry.KindMetrics); ok {
		if err := readJSON(r, digest, &d.Metrics); err != nil {
			return nil, err
		}
	}
	d.Gates, err = gatesOf(r, ref.Digest)
	return d, err
}

func readBundle(r *registry.Registry, digest string) (registry.Manifest, model.Bundle, error) {
	manifest, content, err := r.Read(digest)
	if err != nil {
		return manifest, model.Bundle{}, err
	}
	bundle, err := model.DecodeBundle(content)
	if err != nil {
		err = fmt.Errorf("decoding %s: %w", digest, err)
	}
	return manifest, bundle, err
}

func readJSON(r *registry.Registry, digest string, into any) error {
	_, content, err := r.Read(digest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, into); err != nil {
		return failure.Wrap(failure.Corrupt, digest, "decoding artefact", err)
	}
	return nil
}

// gatesOf is what the gates said of a model when it was evaluated; nil where there is no evaluation of it.
func gatesOf(r *registry.Registry, digest string) ([]training.Verdict, error) {
	evaluations, err := r.Artefacts(registry.KindEvaluation)
	if err != nil {
		return nil, err
	}
	for _, e := range evaluations {
		if of, ok := e.Input(registry.KindModel); !ok || of != digest {
			continue
		}
		var evaluation struct{ Gates []training.Verdict }
		err := readJSON(r, e.Digest, &evaluation)
		return evaluation.Gates, err
	}
	return nil, nil
}

// parameters is what a LightGBM file says it was trained with: its parameters section of "[name: value]" lines.
func parameters(b model.Bundle) map[string]string {
	found := map[string]string{}
	if b.Format != model.MediaLightGBM {
		return found
	}
	_, section, ok := strings.Cut(string(b.Model), "\nparameters:\n")
	if !ok {
		return found
	}
	section, _, _ = strings.Cut(section, "end of parameters")
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, "["), "]"), ": ")
		if ok && strings.HasPrefix(line, "[") {
			found[name] = value
		}
	}
	return found
}

func (d *versionView) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "version\t%s\n", d.Version)
	fmt.Fprintf(w, "digest\t%s\n", d.Digest)
	fmt.Fprintf(w, "added\t%s\n", d.Added)
	fmt.Fprintf(w, "aliases\t%s\n", strings.Join(d.Aliases, ", "))
	fmt.Fprintf(w, "model file\t%s, %d bytes\n", d.Format, d.Bytes)
	fmt.Fprintf(w, "golden rows\t%d\n", d.Golden)
	fmt.Fprintf(w, "training rows\t%d\n", d.Rows)
	if d.Code != "" {
		fmt.Fprintf(w, "code\t%s\n", d.Code)
	}
	for _, in := range d.MadeOf {
		fmt.Fprintf(w, "made of\t%s %s\n", in.Role, in.Digest)
	}
	for _, in := range d.Inputs {
		fmt.Fprintf(w, "input\t%s, from %s%s\n", in.Name, in.Source, categoriesShown(in.Categories))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Metrics)) {
		fmt.Fprintf(w, "metric\t%s %.6g\n", name, d.Metrics[name])
	}
	for _, g := range d.Gates {
		fmt.Fprintf(w, "gate\t%s%s\n", passed(g), strings.TrimPrefix(g.String(), "gate "))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Parameters)) {
		fmt.Fprintf(w, "parameter\t%s = %s\n", name, d.Parameters[name])
	}
	return w.Flush()
}

// categoriesShown is the first names of an input's categories, in the order of their codes.
func categoriesShown(names []string) string {
	const most = 12
	switch {
	case names == nil:
		return ""
	case len(names) > most:
		return fmt.Sprintf(", %d categories: %s, …", len(names), strings.Join(names[:most], ", "))
	default:
		return ", categories: " + strings.Join(names, ", ")
	}
}

func passed(v training.Verdict) string {
	if v.Passed {
		return "passed: "
	}
	return "NOT PASSED: "
}
