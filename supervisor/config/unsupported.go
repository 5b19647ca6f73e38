package config

import (
	"fmt"
	"strings"
)

// UnsupportedError says that a directive is known to systemd and not done here.
type UnsupportedError struct {
	Name   string // of the directive, with its value where only that is not supported
	Unsafe bool   // going on without it would give the service more than its unit allows
}

func (e *UnsupportedError) Error() string {
	if e.Unsafe {
		return fmt.Sprintf("%s is not supported yet, and leaving it out would not be safe", e.Name)
	}
	return fmt.Sprintf("%s is not supported yet", e.Name)
}

// unsupported looks name up among the directives that systemd documents for
// services, sockets and units of any type, and that this package does not read.
func unsupported(name string) (*UnsupportedError, bool) {
	for _, n := range strings.Fields(restricting) {
		if n == name {
			return &UnsupportedError{Name: name + "=", Unsafe: true}, true
		}
	}
	for _, n := range strings.Fields(unsupportedNames) {
		if n == name {
			return &UnsupportedError{Name: name + "="}, true
		}
	}
	return nil, false
}

// restricting are the directives that take something away from a service: who
// wrote one relies on it. From systemd.exec(5) and systemd.resource-control(5).
const restricting = `
		AmbientCapabilities AppArmorProfile BPFProgram BindPaths BindReadOnlyPaths CapabilityBoundingSet
		DelegateNamespaces DeviceAllow DevicePolicy DynamicUser ExecPaths ExtensionDirectories
		ExtensionImages IPAddressAllow IPAddressDeny IPCNamespacePath IPEgressFilterPath IPIngressFilterPath
		InaccessiblePaths KeyringMode LockPersonality MemoryDenyWriteExecute MountImages NFTSet
		NetworkNamespacePath NoExecPaths NoNewPrivileges PAMName PrivateBPF PrivateDevices PrivateIPC
		PrivateMounts PrivateNetwork PrivatePIDs PrivateTmp PrivateUsers ProcSubset ProtectClock
		ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs ProtectKernelModules
		ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyPaths ReadWritePaths RemoveIPC
		RestrictAddressFamilies RestrictFileSystems RestrictNamespaces RestrictNetworkInterfaces
		RestrictRealtime RestrictSUIDSGID RootDirectory RootDirectoryStartOnly RootEphemeral RootHash
		RootHashSignature RootImage RootImageOptions RootImagePolicy RootVerity SELinuxContext
		SELinuxContextFromNet SecureBits SmackLabel SmackLabelIPIn SmackLabelIPOut SmackProcessLabel
		SocketBindAllow SocketBindDeny SupplementaryGroups SystemCallArchitectures SystemCallFilter
		TemporaryFileSystem UnsetEnvironment
`

// unsupportedNames are the others: Instances= of [X-Supervise], and what is in systemd.unit(5), systemd.service(5),
// systemd.socket(5), systemd.exec(5), systemd.kill(5) and
// systemd.resource-control(5).
const unsupportedNames = `
		Accept AcceptFileDescriptors After Alias AllowIsolate AllowedCPUs AllowedMemoryNodes Also
		AssertACPower AssertArchitecture AssertCPUFeature AssertCPUPressure AssertCPUs AssertCapability
		AssertControlGroupController AssertCredential AssertDirectoryNotEmpty AssertEnvironment
		AssertFileIsExecutable AssertFileNotEmpty AssertFirstBoot AssertGroup AssertHost AssertIOPressure
		AssertKernelCommandLine AssertKernelVersion AssertMemory AssertMemoryPressure AssertNeedsUpdate
		AssertOSRelease AssertPathExists AssertPathExistsGlob AssertPathIsDirectory AssertPathIsEncrypted
		AssertPathIsMountPoint AssertPathIsReadWrite AssertPathIsSymbolicLink AssertSecurity AssertUser
		AssertVirtualization Before BindLogSockets BindsTo BusName CPUAccounting CPUAffinity CPUQuota
		CPUQuotaPeriodSec CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUWeight
		CacheDirectory CacheDirectoryAccounting CacheDirectoryMode CacheDirectoryQuota CollectMode
		ConditionACPower ConditionArchitecture ConditionCPUFeature ConditionCPUPressure ConditionCPUs
		ConditionCapability ConditionControlGroupController ConditionCredential ConditionDirectoryNotEmpty
		ConditionEnvironment ConditionFileIsExecutable ConditionFileNotEmpty ConditionFirmware
		ConditionFirstBoot ConditionGroup ConditionHost ConditionIOPressure ConditionKernelCommandLine
		ConditionKernelVersion ConditionMemory ConditionMemoryPressure ConditionNeedsUpdate
		ConditionOSRelease ConditionPathExists ConditionPathExistsGlob ConditionPathIsDirectory
		ConditionPathIsEncrypted ConditionPathIsMountPoint ConditionPathIsReadWrite ConditionPathIsSocket
		ConditionPathIsSymbolicLink ConditionSecurity ConditionUser ConditionVersion ConditionVirtualization
		ConfigurationDirectory ConfigurationDirectoryMode Conflicts CoredumpFilter CoredumpReceive
		DefaultDependencies DefaultInstance DefaultMemoryLow DefaultMemoryMin DefaultStartupMemoryLow
		DeferTrigger DeferTriggerMaxSec Delegate DelegateSubgroup Description DisableControllers
		Documentation ExecCondition ExecReload ExecSearchPath ExecStartPost ExecStartPre ExecStop
		ExecStopPost ExecStopPre ExitType ExtensionImagePolicy ExtraFileDescriptors FailureAction
		FailureActionExitStatus FileDescriptorStoreMax FileDescriptorStorePreserve FlushPending GuessMainPID
		IOAccounting IODeviceLatencyTargetSec IODeviceWeight IOReadBandwidthMax IOReadIOPSMax
		IOSchedulingClass IOSchedulingPriority IOWeight IOWriteBandwidthMax IOWriteIOPSMax IPAccounting
		IgnoreOnIsolate IgnoreSIGPIPE Instances ImportCredential JobRunningTimeoutSec JobTimeoutAction
		JobTimeoutRebootArgument JobTimeoutSec JoinsNamespaceOf ListenFIFO ListenMessageQueue ListenNetlink
		ListenSpecial ListenUSBFunction LoadCredential LoadCredentialEncrypted LogExtraFields
		LogFilterPatterns LogLevelMax LogNamespace LogRateLimitBurst LogRateLimitIntervalSec LogsDirectory
		LogsDirectoryAccounting LogsDirectoryMode LogsDirectoryQuota ManagedOOMMemoryPressure
		ManagedOOMMemoryPressureDurationSec ManagedOOMMemoryPressureLimit ManagedOOMPreference
		ManagedOOMSwap MaxConnections MaxConnectionsPerSource MemoryAccounting MemoryHigh MemoryKSM
		MemoryLow MemoryMax MemoryMin MemoryPressureThresholdSec MemoryPressureWatch MemorySwapMax
		MemoryZSwapMax MemoryZSwapWriteback MessageQueueMaxMessages MessageQueueMessageSize MountAPIVFS
		MountFlags MountImagePolicy NUMAMask NUMAPolicy NonBlocking NotifyAccess OOMPolicy OOMScoreAdjust
		OnFailure OnFailureJobMode OnSuccess OnSuccessJobMode OpenFile PIDFile PartOf PassEnvironment
		PassFileDescriptorsToExec PassPIDFD PassPacketInfo PassSecurity Personality PipeSize PollLimitBurst
		PollLimitIntervalSec PropagatesReloadTo PropagatesStopTo RebootArgument RefuseManualStart
		RefuseManualStop ReloadPropagatedFrom ReloadSignal RemainAfterExit RequiredBy Requires
		RequiresMountsFor Requisite RestartKillSignal RestartMode RuntimeDirectory RuntimeDirectoryMode
		RuntimeDirectoryPreserve RuntimeMaxSec RuntimeRandomizedExtraSec Service SetCredential
		SetCredentialEncrypted SetLoginEnvironment Slice SocketProtocol Sockets SourcePath StandardError
		StandardInput StandardInputData StandardInputText StartLimitAction StartupAllowedCPUs
		StartupAllowedMemoryNodes StartupCPUWeight StartupIOWeight StartupMemoryHigh StartupMemoryLow
		StartupMemoryMax StartupMemorySwapMax StartupMemoryZSwapMax StateDirectory StateDirectoryAccounting
		StateDirectoryMode StateDirectoryQuota StopPropagatedFrom StopWhenUnneeded SuccessAction
		SuccessActionExitStatus SurviveFinalKillSignal Symlinks SyslogFacility SyslogIdentifier SyslogLevel
		SyslogLevelPrefix SystemCallErrorNumber SystemCallLog TCPCongestion TTYColumns TTYPath TTYReset
		TTYRows TTYVHangup TTYVTDisallocate TasksAccounting TasksMax TimeoutCleanSec TimeoutStartFailureMode
		TimeoutStopFailureMode TimerSlackNSec Timestamping TriggerLimitBurst TriggerLimitIntervalSec
		USBFunctionDescriptors USBFunctionStrings Upholds UtmpIdentifier UtmpMode WantedBy Wants
		WantsMountsFor WatchdogSignal Writable
`
