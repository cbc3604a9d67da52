{{/* Errors for values that are valid, but with which pods would never start, or traffic would never arrive. Called by the checks. */}}

{{/* Nodes and disks. */}}
{{- define "tally.checkPlacement" -}}
{{- $v := .Values -}}
{{- if and $v.worker.spillVolume $v.worker.spillStorageClass -}}
{{- fail "worker.spillVolume and worker.spillStorageClass are set: remove one of them" -}}
{{- end -}}
{{- range $kind := list "configMap" "secret" "projected" "downwardAPI" "persistentVolumeClaim" "nfs" -}}
{{- if hasKey $v.worker.spillVolume $kind -}}
{{- fail (printf "worker.spillVolume.%s is shared by workers, or cannot be written: take ephemeral, hostPath, csi or emptyDir" $kind) -}}
{{- end -}}
{{- end -}}
{{- if and $v.coordinator.podAntiAffinity (hasKey $v.coordinator.affinity "podAntiAffinity") -}}
{{- fail "coordinator.podAntiAffinity and coordinator.affinity.podAntiAffinity are set: remove one of them" -}}
{{- end -}}
{{- if include "tally.isOnOneNode" . -}}
{{- if eq $v.coordinator.podAntiAffinity "required" -}}
{{- fail "coordinator.podAntiAffinity is required, and the volume (storage.claim.accessMode is ReadWriteOnce) needs all pods on one node: set the access mode to ReadWriteMany, or remove podAntiAffinity" -}}
{{- end -}}
{{- end -}}
{{- $strategy := $v.coordinator.strategy -}}
{{- if and (not $v.consul.url) $strategy (ne (default "RollingUpdate" $strategy.type) "Recreate") -}}
{{- fail "coordinator.strategy is a rolling update, and no Consul elects a leader: two coordinators would conflict. Remove it, or set consul.url" -}}
{{- end -}}
{{- range $component := list "coordinator" "worker" -}}
{{- with (get $v $component).strategy -}}
{{- if and (eq (default "RollingUpdate" .type) "Recreate") (hasKey . "rollingUpdate") -}}
{{- fail (printf "%s.strategy has the type Recreate, and rollingUpdate: remove one of them" $component) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (ne $v.autoscaling.mode "keda") (or $v.autoscaling.keda.paused $v.autoscaling.keda.extraTriggers) -}}
{{- fail (printf "autoscaling.keda.paused or extraTriggers is set, and autoscaling.mode is %s: set it to keda, or remove them" $v.autoscaling.mode) -}}
{{- end -}}
{{- end -}}

{{/* Consul and HTTP. */}}
{{- define "tally.checkTraffic" -}}
{{- $v := .Values -}}
{{- range regexFindAll "\\$\\([^)]*\\)?" $v.consul.url -1 -}}
{{- if ne . "$(HOST_IP)" -}}
{{- fail (printf "consul.url has %s: only $(HOST_IP) is replaced" .) -}}
{{- end -}}
{{- end -}}
{{- if and (not $v.consul.url) (or $v.consul.prefix $v.consul.namespace $v.consul.partition) -}}
{{- fail "consul.prefix, consul.namespace or consul.partition is set, and consul.url is empty: set it, or remove them" -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled $v.consul.url (ne $v.consul.register "kv") (not $v.networkPolicy.consulPeers) -}}
{{- fail "networkPolicy.consulPeers is empty, and Consul's agents check the pods: name the agents, or set consul.register to kv" -}}
{{- end -}}
{{- $exposed := or $v.ingress.enabled $v.gateway.enabled -}}
{{- if and $v.networkPolicy.enabled $exposed (not $v.networkPolicy.webClients) -}}
{{- fail "networkPolicy.webClients is empty, so no controller reaches the coordinators: name the pods of the ingress or gateway" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.enabled is true, and ingress.host is empty: set the host name" -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}
{{- fail "gateway.enabled is true, and gateway.parentRefs is empty: name a gateway" -}}
{{- end -}}
{{- end -}}
