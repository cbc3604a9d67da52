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

{{/* The claim that is there. Kubernetes refuses these changes, but possibly after it has changed other objects. Helm looks into the
cluster, except when it only renders. */}}
{{- define "tally.checkClaim" -}}
{{- $claim := .Values.storage.claim -}}
{{- $name := printf "%s-data" (include "tally.fullname" .) -}}
{{- if include "tally.claims" . -}}
{{- with lookup "v1" "PersistentVolumeClaim" .Release.Namespace $name -}}
{{- $advice := "a claim cannot change it: restore the value, or copy the data to another claim and set storage.existingClaim" -}}
{{- $mode := first .spec.accessModes -}}
{{- if ne $mode $claim.accessMode -}}
{{- fail (printf "storage.claim.accessMode is %s, and the claim %s has %s; %s" $claim.accessMode $name $mode $advice) -}}
{{- end -}}
{{- $class := default "" .spec.storageClassName -}}
{{- if and $claim.storageClass (ne $claim.storageClass $class) -}}
{{- fail (printf "storage.claim.storageClass is %s, and the claim %s has %s; %s" $claim.storageClass $name $class $advice) -}}
{{- end -}}
{{- $size := .spec.resources.requests.storage -}}
{{- if lt (include "tally.quantity" $claim.size | float64) (include "tally.quantity" $size | float64) -}}
{{- fail (printf "storage.claim.size is %s, and the claim %s has %s; a claim cannot shrink: restore the value" $claim.size $name $size) -}}
{{- end -}}
{{- end -}}
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
