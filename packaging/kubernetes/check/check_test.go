// Package check holds what others make of our manifests: the Kubernetes API
// types, compose's and HCL's own parsers. It is a module of its own so that none
// of them enters the go.mod of supervise.
package check

import (
	"bytes"
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// timeoutStop is the value of --timeout-stop among arguments.
func timeoutStop(t *testing.T, args []string) time.Duration {
	t.Helper()
	i := slices.Index(args, "--timeout-stop")
	if i < 0 || i+1 == len(args) {
		t.Fatalf("no --timeout-stop in %q", args)
	}
	d, err := time.ParseDuration(args[i+1])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The manifests are what the API server would accept: every field is one of its
// types. And the times fit: preStop and --timeout-stop end before the kubelet
// kills.
func TestKubernetes(t *testing.T) {
	text, err := os.ReadFile("../web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	var s corev1.Service
	var b policyv1.PodDisruptionBudget
	seen := 0
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatal(err)
		}
		var into any
		switch kind.APIVersion + " " + kind.Kind {
		case "apps/v1 Deployment":
			into = &d
		case "v1 Service":
			into = &s
		case "policy/v1 PodDisruptionBudget":
			into = &b
		default:
			t.Fatalf("what is %v", kind)
		}
		seen++
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
	}
	if seen != 3 {
		t.Fatalf("%d documents", seen)
	}
	pod := d.Spec.Template
	for name, selector := range map[string]*metav1.LabelSelector{
		"Deployment": d.Spec.Selector, "PodDisruptionBudget": b.Spec.Selector, "Service": {MatchLabels: s.Spec.Selector},
	} {
		sel, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil || sel.Empty() || !sel.Matches(labels.Set(pod.Labels)) {
			t.Errorf("%s selects %v, the pods are %v (%v)", name, sel, pod.Labels, err)
		}
	}
	c := pod.Spec.Containers[0]
	stop := timeoutStop(t, c.Command)
	pre := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; grace < pre+stop+time.Second {
		t.Errorf("the grace period %v ends before preStop %v and --timeout-stop %v", grace, pre, stop)
	}
	if u := d.Spec.Strategy.RollingUpdate; u.MaxUnavailable.IntValue() != 0 || u.MaxSurge.IntValue() < 1 {
		t.Errorf("a rolling update takes pods away before there are new ones: %+v", u)
	}
	ports := map[string]bool{}
	for _, p := range c.Ports {
		ports[p.Name] = true
	}
	if !ports[s.Spec.Ports[0].TargetPort.StrVal] || !ports[c.ReadinessProbe.HTTPGet.Port.StrVal] ||
		!ports[c.StartupProbe.HTTPGet.Port.StrVal] || !ports[c.LivenessProbe.TCPSocket.Port.StrVal] {
		t.Error("a probe or the service names a port that the container has not")
	}
	if limit := c.Resources.Limits.Memory().Value(); limit != 64<<20 {
		t.Errorf("the tests of packaging/container run in 64 MB, not in %d bytes", limit)
	}
}

func TestCompose(t *testing.T) {
	const file = "../../container/compose.yaml"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  "../../container",
		ConfigFiles: []types.ConfigFile{{Filename: file, Content: text}},
	}, func(o *loader.Options) { o.SetProjectName("supervise", true) })
	if err != nil {
		t.Fatal(err)
	}
	web := p.Services["web"]
	image, err := os.ReadFile("../../container/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for line := range bytes.Lines(image) {
		if rest, ok := bytes.CutPrefix(line, []byte("ENTRYPOINT ")); ok {
			if err := yaml.Unmarshal(rest, &args); err != nil {
				t.Fatal(err)
			}
		}
	}
	if stop := timeoutStop(t, args); time.Duration(*web.StopGracePeriod) < stop+time.Second {
		t.Errorf("the grace period %v ends before --timeout-stop %v", *web.StopGracePeriod, stop)
	}
	if web.MemLimit != 64<<20 || !web.ReadOnly || web.Build.Target != "example" {
		t.Errorf("not what packaging/container tests: %+v", web)
	}
}

func TestNomad(t *testing.T) {
	f, diags := hclparse.NewParser().ParseHCLFile("../../nomad/web.nomad.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	task := find(f.Body.(*hclsyntax.Body), "task")
	if task == nil {
		t.Fatal("no task")
	}
	config := find(task, "config")
	node := &hcl.EvalContext{Variables: map[string]cty.Value{"NOMAD_PORT_http": cty.StringVal("20000")}}
	value, diags := config.Attributes["args"].Expr.Value(node)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var args []string
	for _, v := range value.AsValueSlice() {
		args = append(args, v.AsString())
	}
	kill, diags := task.Attributes["kill_timeout"].Expr.Value(node)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	limit, err := time.ParseDuration(kill.AsString())
	if err != nil {
		t.Fatal(err)
	}
	if stop := timeoutStop(t, args); limit < stop+time.Second {
		t.Errorf("kill_timeout %v ends before --timeout-stop %v", limit, stop)
	}
}

// find is the first block of a type, at any depth.
func find(body *hclsyntax.Body, name string) *hclsyntax.Body {
	for _, b := range body.Blocks {
		if b.Type == name {
			return b.Body
		}
		if in := find(b.Body, name); in != nil {
			return in
		}
	}
	return nil
}
