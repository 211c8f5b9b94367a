// A real API server. Its module cannot be installed by name, since it replaces parts of itself by folders; go.mod beside this says which.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
